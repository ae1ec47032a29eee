"""Carbon: from the counters of GPUs to grams of an administration."""
