"""The priors alone: draws of data from them, and whether they can have made data of this scale."""
