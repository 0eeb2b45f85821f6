"""An application: image classification (Liu et al., 2018, section 5), any network with or without coordinates."""
