"""The dataset of a run: views of the pool as Parquet files, with a card."""
