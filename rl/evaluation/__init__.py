"""Evaluation of policies: episodes, scores, statistics, films and saliency."""
