"""Makes a small step that trains known under the name of a real one, in every process that has this folder."""

import sys
import types

import toy_training_steps

module = types.ModuleType("visavis.steps.tune_toy")
module.tune_toy = toy_training_steps.tune_toy
sys.modules[module.__name__] = module
