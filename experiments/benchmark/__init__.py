"""Speed: workloads, what a machine could do, other systems, tables of it all.

workloads/    decoding, training and likelihood of one of our models
baselines.py  the same by CTranslate2 and Hugging Face
roofline.py   the least time that a program's matrix products can take
suites.py     what a whole table measures, each line in a process of its own
table.py      rows for people
"""
