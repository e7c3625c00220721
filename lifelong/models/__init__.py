"""Every nn.Module, and how to build it by name."""

from lifelong.models.classifier import Classifier, build, outputs

__all__ = ["Classifier", "build", "outputs"]
