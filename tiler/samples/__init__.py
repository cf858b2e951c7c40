"""Sample scenes: `sample://plaza`, `duo`, `corridor`, `night`, `crowd`, drawn on first use.

| file            | what it holds                                                   |
| --------------- | --------------------------------------------------------------- |
| `cache.py`      | URIs, parameters, the per-user cache, encoding                  |
| `render.py`     | one frame of a scene as planes, with ground truth               |
| `scene.py`      | the scenes: camera, things, who walks where                     |
| `actors.py`     | paths and acts as poses at any time                             |
| `training.py`   | random pictures with boxes for training a detector              |
| `people.py`     | figures, shadows and things into one canvas, in depth order     |
| `figure.py`     | build, clothes, walk cycle, postures                            |
| `body.py`       | the tubes of a posed figure, projected to parts                 |
| `places.py`     | ground, walls, light of each scene; random ones                 |
| `props.py`      | trees, lamps, cars, benches                                     |
| `background.py` | ray casting of places, the builder of props                     |
| `raster.py`     | kernels: shaded parts, polygons                                 |
| `shadow.py`     | kernels: contact and cast shadows                               |
| `effects.py`    | kernels: lens, sensor, recorder, RGB to YCbCr                   |
"""

from tiler.samples.cache import RENDERER_VERSION, Sample, SampleSpec, cache_folder, describe, names, resolve

__all__ = ["RENDERER_VERSION", "Sample", "SampleSpec", "cache_folder", "describe", "names", "resolve"]
