"""`brainseg app`: a page to try the model on a scan, on this machine.

visit.py     what one open page holds: its upload, the patient chosen from it, the result
view.py      its slices, to go through
result.py    a result in words
page.py      the page itself, in gradio
guard.py     which requests are answered, and what the browser may load
server.py    serves it, and removes everything afterwards

Only page.py and server.py know of gradio.
"""
