"""Gates: named, versioned rules over what goes to a model and what comes back.

Reading order: ``configured`` (which rules there are), ``units`` (which texts of a request or answer they read),
``folding`` and ``decoding`` (how texts are written plainly before they are compared), ``kinds`` (one room for each kind
of rule), ``deciding`` (what follows from what was found), ``window`` (answers that are still being written), ``child``
and ``pool`` (rules in processes of their own), ``checking`` (all of it for a service).
"""
