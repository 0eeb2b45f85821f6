"""Detection networks: the paper's and torchvision's, with or without coordinates. Nothing here imports Lightning."""
