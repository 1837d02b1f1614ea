"""The whole order: plan, collect, decide, write; and what is made of finished runs.

`execute` runs tasks and `collect` asks for the Python API; `spec`, `folder` and `asked` say what a run is and where it lies;
`decide`, `figures` and `results` make its numbers; `world` joins several processes; `stored`, `rescore`, `compare` and `board`
read what finished runs left; `check` holds answers to a baseline.
"""
