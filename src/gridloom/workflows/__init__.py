"""One function per verb: what the command line calls, and Python users too."""
