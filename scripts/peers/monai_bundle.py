"""`python -m monai.bundle run` of a bundle's own inference.json: the workflow that the command runs."""

from __future__ import annotations

from common import read_job, timed
from monai.bundle import ConfigWorkflow


def main() -> None:
    job = read_job()
    workflow = ConfigWorkflow(
        config_file=str(job.bundle / "configs" / "inference.json"),
        meta_file=str(job.bundle / "configs" / "metadata.json"),
        logging_file=str(job.bundle / "configs" / "logging.conf"),
        workflow_type="infer",
        bundle_root=str(job.bundle),
        dataset_dir=str(job.data),
        output_dir=str(job.out),
        device=f"$torch.device('{job.device}')",
    )
    workflow.initialize()
    workflow.parser.get_parsed_content("evaluator")  # builds the network; the weights, some 20 ms, are read in `run`
    with timed():
        workflow.run()


if __name__ == "__main__":
    main()
