"""placeholder"""


def reconstructions(view):
    raise RuntimeError
