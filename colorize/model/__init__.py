"""The network and what surrounds it: palette, U-Net, model files, the colorizer and the metrics. No Ray in here."""
