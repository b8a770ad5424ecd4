"""W&B's pages of a study as code: a workspace to watch its runs, and a report of its findings.

Both use what runs, fits and reports log; see `training.run_log` and `reporting.tracking`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from autoscale_exp.base.wandb_runs import X_AXIS
from autoscale_exp.laws.fit_file import Fit
from autoscale_exp.runs.record import RunRecord


@dataclass(frozen=True)
class Study:
    """The study that the pages are about.

    Attributes:
        group: the group of its runs at W&B.
        domains: (K,) training domains.
        validation_domains: (V,) validation domains.
        fit: the fit of its search; None without one.
        answer: the answer of its report, in a sentence; None without one.
        compared: mixtures that its report compares with the reference.
    """

    group: str
    domains: Sequence[str]
    validation_domains: Sequence[str]
    fit: Fit | None = None
    answer: str | None = None
    compared: Sequence[str] = ()

    @staticmethod
    def of(record: RunRecord, group: str, fit: Fit | None, summary: Mapping[str, Any] | None) -> "Study":
        """The study of a finished run; `summary` is the content of its summary.json."""
        domains, validation_domains = list(record.tokens), list(record.losses)
        if summary is None:
            return Study(group, domains, validation_domains, fit)
        differences = next(value for key, value in summary.items() if key.startswith("difference_vs_"))
        return Study(group, domains, validation_domains, fit, summary["answer"], list(differences))


def workspace(study: Study, entity: str, project: str) -> ws.Workspace:
    """Makes a workspace with sections for validation, mixture, scale, responses, comparison and throughput."""
    panels = {
        "Objective": curves(study)[:1],
        "Validation losses": curves(study)[1:],
        "Mixture": [mixture_as_trained(study)],
        "Mixture against scale": [mixture_against_scale(study)],
        "Response curves": responses(study),
        "Comparison": comparison(study),
        "Throughput": [wr.LinePlot(title="Tokens per second", x=X_AXIS, y=["throughput/tokens_per_second"])],
    }
    sections = [
        ws.Section(name=name, panels=of_section, is_open=True, panel_settings=ws.SectionPanelSettings(x_axis=X_AXIS))
        for name, of_section in panels.items()
    ]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=study.group,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis=X_AXIS),
        runset_settings=ws.RunsetSettings(filters=[expr.Metric("Group") == study.group]),
    )


def report(study: Study, entity: str, project: str) -> wr.Report:
    """Makes a report: the answer, the mixture against scale, response curves, the comparison and the speed-up."""
    search, targets = runs_of(study, "search"), runs_of(study, "target")
    fits, reports = runs_of(study, "fit"), runs_of(study, "report")
    blocks: list[Any] = [wr.TableOfContents()]
    if study.answer:
        blocks.append(wr.P(study.answer))
    blocks += [wr.H1("Mixture against scale"), *([wr.MarkdownBlock(mixture_table(study.fit))] if study.fit else [])]
    blocks.append(wr.PanelGrid(runsets=[fits], panels=[mixture_against_scale(study)]))
    blocks += [
        wr.H1("Response curves"),
        wr.P("How the objective of the proxy runs follows the tokens of each domain."),
        wr.PanelGrid(runsets=[search], panels=responses(study)),
        wr.H1("Comparison"),
        wr.PanelGrid(runsets=[targets], panels=[*curves(study), final_objectives()]),
        wr.H1("Speed-up"),
        wr.P("Tokens of the reference's target run that each mixture saves, as shares."),
        wr.PanelGrid(runsets=[reports], panels=[saved_tokens(study), comparison_table()]),
    ]
    return wr.Report(
        entity=entity, project=project, title=f"Data mixture of {study.group}", blocks=blocks, width="fluid"
    )


def as_json(page: ws.Workspace | wr.Report) -> dict[str, Any]:
    """The JSON that W&B would get to save a page."""
    return page._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)


def runs_of(study: Study, job_type: str) -> wr.Runset:
    """The study's runs of a job type."""
    return wr.Runset(name=job_type, filters=[expr.Metric("Group") == study.group, expr.Metric("JobType") == job_type])


def curves(study: Study) -> list[wr.LinePlot]:
    """The objective and each validation loss against tokens, a line per mixture."""
    titles = {"val/objective": "Objective"} | {f"val/loss/{d}": f"Loss of {d}" for d in study.validation_domains}
    return [
        wr.LinePlot(title=title, x=X_AXIS, y=[metric], log_x=True, title_x="tokens", groupby=wr.Config("mixture_name"))
        for metric, title in titles.items()
    ]


def mixture_as_trained(study: Study) -> wr.LinePlot:
    """The shares of the domains in what runs have trained on so far."""
    return wr.LinePlot(title="Mixture as trained", x=X_AXIS, y=shares(study), title_x="tokens", range_y=(0, 1))


def mixture_against_scale(study: Study) -> wr.LinePlot:
    """The shares that fits find at each token budget."""
    title = "Fitted mixture by token budget"
    return wr.LinePlot(title=title, x=X_AXIS, y=shares(study), log_x=True, title_x="token budget", range_y=(0, 1))


def responses(study: Study) -> list[wr.ScatterPlot]:
    """The objective of runs against the tokens of each domain."""
    return [
        wr.ScatterPlot(
            title=f"Objective by tokens of {domain}",
            x=wr.Config(f"tokens.{domain}"),
            y=wr.SummaryMetric("val/objective"),
            log_x=True,
        )
        for domain in study.domains
    ]


def comparison(study: Study) -> list[Any]:
    """Final objectives by mixture, the tokens that each saves, and the table of both."""
    return [final_objectives(), saved_tokens(study), comparison_table()]


def final_objectives() -> wr.BarPlot:
    """The objective at the end, over the runs of each mixture."""
    return wr.BarPlot(title="Final objective", metrics=["val/objective"], groupby=wr.Config("mixture_name"))


def saved_tokens(study: Study) -> wr.BarPlot:
    """The tokens that each mixture saves."""
    return wr.BarPlot(title="Tokens saved", metrics=[f"saved_tokens/{name}" for name in study.compared])


def comparison_table() -> wr.WeavePanelSummaryTable:
    """The table of the report."""
    return wr.WeavePanelSummaryTable(table_name="comparison")


def shares(study: Study) -> list[str]:
    """The metrics of the mixture."""
    return [f"mixture/{domain}" for domain in study.domains]


def mixture_table(fit: Fit) -> str:
    """The mixtures of a fit as a Markdown table."""
    rows = [["tokens", *fit.domains], ["---"] * (1 + len(fit.domains))]
    rows += [[f"{m.tokens:,}", *percentages(m.weights)] for m in (*fit.scales, *fit.targets)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def percentages(weights: Mapping[str, float]) -> list[str]:
    """Weights in percent, for people."""
    return [f"{100 * weight:.1f} %" for weight in weights.values()]
