"""Where a model's files come from: a container image, the model hub, or a folder. One function decides."""
