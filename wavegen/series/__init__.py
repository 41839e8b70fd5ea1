"""Forecasting of number series: files, corpus, the training task, baselines, scores and forecasts."""
