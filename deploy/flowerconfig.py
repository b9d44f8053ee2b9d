"""Flower's options, which it reads from its working directory: what its tasks page shows."""

from typing import Any

# All tasks have the same name. What tells them apart are their id, <job>-<chunk>, their arguments
# and their results. In this order, what matters fits a window of 1,280 pixels.
tasks_columns = "uuid,args,state,result,worker,received,runtime"


def format_task(task: Any) -> Any:
    """Show in its state that a chunk has a bad record, which to Celery is a success."""
    result = task.result or ""
    if result.startswith("✗ "):
        what = result.removeprefix("✗ ").partition(":")[0]
        task.state = "✗ BAD RECORD" if "bad record" in what else f"✗ {what.upper()}"
    return task
