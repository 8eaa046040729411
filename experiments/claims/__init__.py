"""What is claimed of alignment, each as an experiment that can refute it."""
