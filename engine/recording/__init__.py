"""The flight recorder: what each device's memory did and what happened, on disk within a bound.

`format` is the file, `rows` and `entries` are what lies in it, `tiers` how it thins out with age,
`segments` the bounded folder, `writer` and `presence` what the engine runs, `reader` and `export`
what anybody may run over a folder or a copied file, without an engine.

Own append-only segments rather than SQLite, by measurement (two cores, blocks of 250 bytes, one
commit each): 1.5 us and 278 bytes a block against 24 us and 3.1 KB with a WAL, and 390 us and 437
bytes with a rollback journal, which is what SQLite must use on a network home. A file that was cut
off or copied while it grew is read up to its last whole block.

What a day costs, measured over made-up cards that are read ten times a second (idle to busy, where
power and live memory change all the time): seconds 2.4 to 4.4 MB with one card and 3.1 to 7.0 MB with
eight, spans of ten 0.4 to 0.7 and 0.5 to 1.0 MB, and events about 0.4 KB for each line, job or receipt. So
48 hours, 30 days and the quarter of an hour of single readings (0.3 to 0.6 MB) take 17 to 30 MB with one
card and 21 to 45 MB with eight, beside the events. Writing takes 0.02 % of a core with one card and
0.15 % with eight.
"""
