"""Models of yearly sunspot numbers: cells with a random input, and the linear-Gaussian model beside them."""

import latentrnn as lr


def gru(data, hidden=8):
    heads = {"SUNACTIVITY": lr.Gaussian()}
    return lr.LatentRNN(data.spec, transition=lr.GRU(hidden), latent=lr.Innovations(1), observations=heads)


def lstm(data, hidden=8):
    heads = {"SUNACTIVITY": lr.Gaussian()}
    return lr.LatentRNN(data.spec, transition=lr.LSTM(hidden), latent=lr.Innovations(1), observations=heads)
