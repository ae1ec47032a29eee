"""Rules of carbon: from a GPU's counter to what each request answers for, exactly.

integration (counter to windows) → splitting (dynamic, busy, idle) → weights (work and presence) → sharing (requests,
conserved) → pools (host, facility and grams, by impacts, factors and hardware) → entries. modelling is for what no
meter saw. All amounts are integers: energy in µJ, power in mW, time in µs (instants: since the Unix epoch), carbon in
ng CO2e, factors in µg CO2e/kWh. None is unknown; 0 is a measurement.
"""
