"""What else people would import with, each as a process of its own. They share no code with us."""
