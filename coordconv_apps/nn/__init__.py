"""CoordConv layers and the conversion of models; needs torch only."""
