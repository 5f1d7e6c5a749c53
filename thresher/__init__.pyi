from schemas.recipe import Recipe as Recipe
from thresher.auditing.audit import Audit as Audit
from thresher.errors import ThresherError as ThresherError
from thresher.interface import audit as audit
from thresher.interface import filter_samples as filter_samples
from thresher.interface import load_recipe as load_recipe
from thresher.interface import publish as publish
from thresher.interface import run as run
from thresher.pool.run import Run as Run
from thresher.pool.run import open_run as open_run

__version__: str
