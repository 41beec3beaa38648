"""How close two results must be: one table, each figure with its reason.

A tolerance on logits is relative: the root mean square of the difference over that of the
reference.
"""

# Eager float32 against transformers float32: the same products, added in another order where the
# portions differ. Measured 0 for one prefill, 1.3e-6 over 300 single steps.
FLOAT32_REL_RMS = 1e-5

# One float32 model, its tokens in other portions: matrix products and attention add in another
# order for other shapes. Measured 1.3e-6.
SAME_MODEL_REL_RMS = 1e-5

# bfloat16 keeps 8 bits of each intermediate result. transformers is 0.014 off its own float32,
# ours 0.013: half as much again is another rounding, more is a fault.
BFLOAT16_EXCESS = 1.5

# The rotary frequencies against transformers': the same float32 formula.
FREQUENCY_REL = 1e-6

# The least error that a deliberate fault must cause in a twin test: fifty times the tolerance.
# The weakest, an epsilon of 1e-6 for 1e-5, causes 1.4e-3; a missing rope scaling 0.07.
FAULT_REL_RMS = 5e-4

# float64 against float64, through one logarithm and one exponential.
FLOAT64_REL = 1e-9
