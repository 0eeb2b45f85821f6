"""Generative models on the two-shape dataset (Liu et al., 2018, section 5), and on folders of images."""
