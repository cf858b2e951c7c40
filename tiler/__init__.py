"""tiler: many cameras, one picture, one encoder.

    decode -> preprocess -> infer -> track -> compose -> encode -> output
"""

__version__ = "0.1.0"
