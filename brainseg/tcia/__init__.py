"""Public collections of The Cancer Imaging Archive, from the buckets of the Imaging Data Commons (extra `tcia`).

index.py      what a collection holds, from the index that idc-index installs; works offline
plan.py       the series of it that `segment` would take, with sizes and licences
download.py   those series to disk with s5cmd, resumed where it stopped
"""
