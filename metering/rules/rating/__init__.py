"""What usage costs: which price takes what, what a month comes to, totals and VAT.

Everything is integers: quantities in base units, prices in 10^-9 of a currency for so many base units, lines in cents.
An amount is quantity × price ÷ base, divided last, from sums of a whole month; it is rounded once, to the cent, half
up. Totals are sums of lines, and VAT is reckoned once for each category. No rounded part is ever multiplied.
"""
