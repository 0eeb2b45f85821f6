"""Object detection with and without coordinates: Faster R-CNN on canvases of scattered digits."""
