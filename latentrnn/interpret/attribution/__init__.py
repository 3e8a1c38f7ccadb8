"""Which values of the input an answer comes from: saliency, mutagenesis, attention."""
