"""The filter `coherence`: finds prose that broke while it was sampled."""
