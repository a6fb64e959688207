"""The page itself, in gradio: what it shows, and what its parts do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from brainseg.app.result import refusal_html, result_html
from brainseg.app.visit import Networks, Visit, Visits, uploaded
from brainseg.errors import BrainsegError, MachineError, bug_trace
from brainseg.writers.overlay import NOTICE

log = logging.getLogger(__name__)
TITLE = "brainseg"
INTRODUCTION = (
    f"<h1>brainseg</h1><p>Marks FLAIR abnormality (lower-grade glioma) in brain MRI. <strong>{NOTICE}.</strong> "
    "The scan stays on the machine that serves this page, and is removed when the page is closed.</p>"
)
EMPTY_PICTURE = '<p class="empty">The slices appear here.</p>'
ACCEPTED = '<p class="hint">TIFF slices, NIfTI, MHA, NRRD, DICOM, or a zip of any; files or a folder.</p>'

Update = Any


class Page:
    """What the parts of the page do; each method takes and gives the values of gradio's components."""

    def __init__(self, networks: Networks, visits: Visits, root: Path) -> None:
        self.networks, self.visits, self.root = networks, visits, root

    def enter(self, request: gr.Request) -> None:
        """The page was opened."""
        self.visits.of(_session(request))

    def upload(self, files: Any, bundle: str, threshold: float, request: gr.Request) -> tuple[Update, ...]:
        """A new scan: reads it and segments it."""

        def take(visit: Visit) -> None:
            visit.take(uploaded(files, self.root))

        return self._answer(take, bundle, threshold, request, fresh=True)

    def choose(self, patient: str, bundle: str, threshold: float, request: gr.Request) -> tuple[Update, ...]:
        """Another patient of the same upload."""
        return self._answer(lambda visit: visit.choose(patient), bundle, threshold, request, fresh=True)

    def change(self, place: int, bundle: str, threshold: float, request: gr.Request) -> tuple[Update, ...]:
        """Another bundle or threshold for the same patient."""
        if self.visits.of(_session(request)).case is None:
            return tuple(gr.skip() for _ in range(5))
        return self._answer(lambda _: None, bundle, threshold, request, place=int(place))

    def scroll(self, place: int, request: gr.Request) -> str:
        """The picture of one slice."""
        shown = self.visits.of(_session(request)).view
        return EMPTY_PICTURE if shown is None else shown.picture(int(place))

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.visits.leave(_session(request))

    def _answer(
        self,
        prepare: Callable[[Visit], None],
        bundle: str,
        threshold: float,
        request: gr.Request,
        *,
        fresh: bool = False,
        place: int = 0,
    ) -> tuple[Update, ...]:
        """Patients, slider, picture, words and download after `prepare`, or why there are none."""
        visit = self.visits.of(_session(request))
        with visit.lock:
            try:
                prepare(visit)
                shown = visit.segment(self.networks, str(bundle), float(threshold))
                place = shown.fullest() if fresh else place
                words, picture = result_html(visit), shown.picture(place)
                download = gr.DownloadButton(value=str(visit.download()), visible=True)
            except BrainsegError as error:
                return _refused(visit, visit.words(error))
            except MemoryError:
                return _refused(visit, str(MachineError("memory", "not enough", "use a smaller volume")))
            except Exception as error:  # the page goes on; -v shows where
                log.debug("the page failed\n%s", bug_trace(error))
                return _refused(visit, f"brainseg: {type(error).__name__}; this is a bug, -v shows where")
        return (
            _patients(visit),
            gr.Slider(maximum=max(len(shown.slices), 2), value=place, visible=len(shown.slices) > 1),
            picture,
            words,
            download,
        )


def _session(request: gr.Request) -> str:
    return str(request.session_hash)


def _patients(visit: Visit) -> Update:
    """The choice of a patient, where there is one."""
    names = [one.name for one in visit.patients]
    return gr.Dropdown(choices=names, value=visit.patient.name if visit.patient else None, visible=len(names) > 1)


def _refused(visit: Visit, line: str) -> tuple[Update, ...]:
    """A page that says why there is no result; another patient of the upload can still be chosen."""
    patients = _patients(visit)
    if len(visit.patients) < 2:
        visit.clear()
    download = gr.DownloadButton(value=None, visible=False)
    return patients, gr.Slider(visible=False), EMPTY_PICTURE, refusal_html(line), download


def build(networks: Networks, visits: Visits, root: Path, threshold: float) -> gr.Blocks:
    """The page, not yet served. `threshold` is where its slider stands at first."""
    page = Page(networks, visits, root)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.HTML(INTRODUCTION, elem_id="introduction")
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                files = gr.File(label="Scan", file_count="multiple", height=150)
                folder = gr.UploadButton("Choose a folder", file_count="directory", size="sm")
                gr.HTML(ACCEPTED, elem_id="accepted")
                patient = gr.Dropdown(label="Patient", visible=False, elem_id="patient")
                bundle = gr.Dropdown(list(networks.names), value=networks.names[0], label="Bundle", elem_id="bundle")
                cut = gr.Slider(0.05, 0.95, threshold, step=0.05, label="Threshold", elem_id="threshold")
                download = gr.DownloadButton(
                    "Download the mask", visible=False, elem_id="download", variant="primary", size="md"
                )
            with gr.Column(scale=3, min_width=320):
                picture = gr.HTML(EMPTY_PICTURE, elem_id="picture")
                place = gr.Slider(
                    1, 2, 1, step=1, label="Slice, from foot to head", visible=False, buttons=[], elem_id="place"
                )
            with gr.Column(scale=3, min_width=320):
                words = gr.HTML("", elem_id="words")
        shown = [patient, place, picture, words, download]
        # preprocess=False: gradio's own would fetch a file that is named by an address, and leave an empty one behind.
        plain = {"preprocess": False, "api_visibility": "private"}
        for source in (files, folder):
            event = source.upload(page.upload, [source, bundle, cut], shown, **plain)
            event.then(lambda: None, None, source, api_visibility="private", show_progress="hidden")
        patient.input(page.choose, [patient, bundle, cut], shown, **plain)
        bundle.input(page.change, [place, bundle, cut], shown, **plain)
        quick = {"show_progress": "hidden", "trigger_mode": "always_last", **plain}
        cut.input(page.change, [place, bundle, cut], shown, **quick)
        place.input(page.scroll, place, picture, queue=False, **quick)
        blocks.load(page.enter, show_progress="hidden", api_visibility="private")
        blocks.unload(page.leave)
    return blocks
