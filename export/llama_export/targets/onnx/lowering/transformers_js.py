"""What transformers.js reads in config.json: which file is the model, and how many hold its data.

It knows file names; it does not know the model.
"""

from __future__ import annotations

KEY = "transformers.js_config"
# transformers.js makes the name of a model's file from a dtype, and this one adds no suffix. In a
# browser its default would add "_quantized".
_DTYPE_WITHOUT_SUFFIX = "fp32"
_DATA_FILES = 1


def transformers_js_keys(model_file: str) -> dict[str, object]:
    """Return the keys of config.json with which transformers.js finds the artifact's files.

    Args:
        model_file: name of the graph; its data is in the one file `<model_file>_data`.
    """
    settings = {
        "dtype": _DTYPE_WITHOUT_SUFFIX,
        "use_external_data_format": {model_file: _DATA_FILES},
    }
    return {KEY: settings}
