"""The coordinate-transform tasks (Liu et al., 2018, section 2): where convolution fails and CoordConv does not."""
