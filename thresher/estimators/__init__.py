"""Estimators as plain functions: pass rates, calibration sums, diversity, intervals."""
