"""Several processes that train one student: launcher, process group, gradient sync, random state."""
