"""Generated policies and questions: rich on purpose in what has gone wrong in policy engines before.

Patterns that overlap, versions, collections of collections, roles that start and end around `now`, deny rows, conditions
that err, groups, environments `*`, names that nobody knows. Everything is drawn from small pools, so that things meet.
"""
