"""crystalmesh: material properties from crystal structures as 3-D meshes."""

__version__ = "0.1.0"
