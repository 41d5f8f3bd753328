"""What embeddings of atoms tell: how they separate atoms, what can be read off them, a picture.

Everything here works on arrays; no models and no tasks.
"""
