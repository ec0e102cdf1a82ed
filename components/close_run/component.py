"""Component `close_run`."""

from kfp import dsl

from components.images import TOOLS_IMAGE


@dsl.component(base_image=TOOLS_IMAGE, packages_to_install=[], install_kfp_package=False)
def close_run(recipe: str, context: str, status: dsl.PipelineTaskFinalStatus, run_id: str = "") -> None:
    """Gather what a run leaves behind, whether it succeeded or not, and end its MLflow run.

    Training jobs that are left are deleted, and the cluster file's webhook is told how the run ended, with links.

    Writes the funnel, the timings, the scorecard, the picture of a chat and the report into the run folder.

    Args:
        recipe: Resolved recipe as JSON.
        context: Store, run folder and tracker as JSON.
        status: How the pipeline ended, as Kubeflow tells it.
        run_id: Kubeflow's id of the run.
    """
    from visavis.launch.closing import close_run as close

    close(recipe, context, succeeded=status.state == "SUCCEEDED", run_id=run_id)
