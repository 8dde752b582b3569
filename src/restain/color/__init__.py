"""What a colour is: spaces, histograms of colours, exact colour maps, and the white point of glass.

No files of users are read here and torch is never imported.
"""
