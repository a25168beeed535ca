"""XGBoost's trees in the text form of LightGBM, so that its readers score the very same model.

Where XGBoost goes left if `x < threshold`, LightGBM does if `x <= threshold`: with 32-bit features
the next smaller 32-bit number is the same question. Missing values are left out, which spares
LightGBM's readers a test per node: the rows here have none.
"""

import json
import math
from typing import Any

import numpy as np
import xgboost

# Numeric, and nothing special about missing values.
DECISION = 2


def as_lightgbm(booster: xgboost.Booster) -> str:
    """The model file of a binary classifier."""
    learner = json.loads(booster.save_raw("json"))["learner"]
    trees = learner["gradient_booster"]["model"]["trees"]
    features = int(learner["learner_model_param"]["num_feature"])
    base = float(learner["learner_model_param"]["base_score"].strip("[]"))
    # LightGBM has no base score: it goes to the leaves of the first tree.
    offsets = [math.log(base / (1 - base))] + [0.0] * (len(trees) - 1)
    blocks = [
        block(number, tree, offset)
        for number, (tree, offset) in enumerate(zip(trees, offsets, strict=True))
    ]
    header = [
        "tree",
        "version=v4",
        "num_class=1",
        "num_tree_per_iteration=1",
        "label_index=0",
        f"max_feature_idx={features - 1}",
        "objective=binary sigmoid:1",
        "feature_names=" + " ".join(f"f{number}" for number in range(features)),
        "feature_infos=" + " ".join(["[-1e300:1e300]"] * features),
        "tree_sizes=" + " ".join(str(len(text)) for text in blocks),
    ]
    return (
        "\n".join(header) + "\n\n" + "".join(blocks) + "end of trees\n\npandas_categorical:null\n"
    )


def block(number: int, tree: dict[str, Any], offset: float) -> str:
    left, right = tree["left_children"], tree["right_children"]
    splits = [node for node in range(len(left)) if left[node] != -1]
    leaves = [node for node in range(len(left)) if left[node] == -1]
    # LightGBM numbers the two kinds apart, and tells leaves by negative numbers.
    names = {node: index for index, node in enumerate(splits)}
    names |= {node: -index - 1 for index, node in enumerate(leaves)}
    conditions = np.array(tree["split_conditions"], dtype=np.float32)
    thresholds = np.nextafter(conditions, np.float32(-np.inf)).astype(np.float64)
    values = conditions.astype(np.float64) + offset
    per_split = {
        "split_feature": [tree["split_indices"][node] for node in splits],
        "split_gain": [1] * len(splits),
        "threshold": [repr(float(thresholds[node])) for node in splits],
        "decision_type": [DECISION] * len(splits),
        "left_child": [names[left[node]] for node in splits],
        "right_child": [names[right[node]] for node in splits],
        "leaf_value": [repr(float(values[node])) for node in leaves],
        "leaf_weight": [1] * len(leaves),
        "leaf_count": [1] * len(leaves),
        "internal_value": [0] * len(splits),
        "internal_weight": [1] * len(splits),
        "internal_count": [1] * len(splits),
    }
    lines = [f"Tree={number}", f"num_leaves={len(leaves)}", "num_cat=0"]
    lines += [f"{name}={' '.join(map(str, items))}" for name, items in per_split.items()]
    return "\n".join([*lines, "is_linear=0", "shrinkage=1\n\n"])
