"""W&B's pages of a study as code: a workspace to watch its runs, and a report of its findings.

Both use what runs, fits and reports log; see `training.run_log` and `reporting.tracking`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from autoscale_exp.base.labels import percent
from autoscale_exp.base.wandb_runs import X_AXIS
from autoscale_exp.laws.fit_file import Fit

MOST_RUNS = 100  # lines in a panel of the workspace; W&B's own limit is ten


@dataclass(frozen=True)
class Comparison:
    """The findings of the study's report.

    Attributes:
        answer: the answer in a sentence.
        target_tokens: token budget of the target runs that it compares.
        mixtures: their mixtures, the reference first.
    """

    answer: str
    target_tokens: int
    mixtures: Sequence[str]


@dataclass(frozen=True)
class Study:
    """The study that the pages are about.

    Attributes:
        name: name of the study.
        groups: the groups of its runs at W&B.
        domains: (K,) training domains.
        validation_domains: (V,) validation domains.
        fit: the fit of its search; None without one.
        comparison: the findings of its report; None without one.
    """

    name: str
    groups: Sequence[str]
    domains: Sequence[str]
    validation_domains: Sequence[str]
    fit: Fit | None = None
    comparison: Comparison | None = None


def workspace(study: Study, entity: str, project: str) -> ws.Workspace:
    """Makes a workspace with sections for validation, mixture, scale, responses, comparison and throughput."""
    objective, *losses = curves(study, max_runs_to_show=MOST_RUNS)
    panels = {
        "Objective": [objective],
        "Validation losses": losses,
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
        name=study.name,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis=X_AXIS),
        runset_settings=ws.RunsetSettings(filters=[in_groups(study)]),
    )


def report(study: Study, entity: str, project: str) -> wr.Report:
    """Makes a report: the answer, the mixture against scale, response curves, the comparison and the speed-up."""
    search, fits, reports = (runs_of(study, kind) for kind in ("search", "fit", "report"))
    of_target = [expr.Config("token_budget") == study.comparison.target_tokens] if study.comparison else []
    targets = runs_of(study, "target", *of_target)
    blocks: list[Any] = [wr.TableOfContents()]
    if study.comparison:
        blocks.append(wr.P(study.comparison.answer))
    blocks += [wr.H1("Mixture against scale"), *([wr.MarkdownBlock(mixture_table(study.fit))] if study.fit else [])]
    blocks.append(wr.PanelGrid(runsets=[fits], panels=[mixture_against_scale(study)]))
    blocks += [
        wr.H1("Response curves"),
        wr.P("How the objective of the proxy runs follows the tokens of each domain."),
        wr.PanelGrid(runsets=[search], panels=responses(study)),
        wr.H1("Comparison"),
        wr.PanelGrid(runsets=[targets], panels=curves(study, groupby=wr.Config("mixture_name"))),
        wr.PanelGrid(runsets=[reports], panels=[final_objectives(study)]),
        wr.H1("Speed-up"),
        wr.P("Tokens of the reference's target run that each mixture saves, as shares."),
        wr.PanelGrid(runsets=[reports], panels=[saved_tokens(study), comparison_table()]),
    ]
    return wr.Report(
        entity=entity, project=project, title=f"Data mixture of {study.name}", blocks=blocks, width="fluid"
    )


def as_json(page: ws.Workspace | wr.Report) -> dict[str, Any]:
    """The JSON that W&B would get to save a page."""
    return page._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)


def in_groups(study: Study) -> Any:
    """The filter for the study's runs."""
    return expr.Metric("Group").isin(list(study.groups))


def runs_of(study: Study, job_type: str, *filters: Any) -> wr.Runset:
    """The study's runs of a job type that pass further filters."""
    return wr.Runset(name=job_type, filters=[in_groups(study), expr.Metric("JobType") == job_type, *filters])


def curves(study: Study, **options: Any) -> list[wr.LinePlot]:
    """The objective and each validation loss against tokens, a line per run unless `options` group them."""
    titles = {"val/objective": "Objective"} | {f"val/loss/{d}": f"Loss of {d}" for d in study.validation_domains}
    return [
        wr.LinePlot(title=title, x=X_AXIS, y=[metric], log_x=True, title_x="tokens", **options)
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
    return [final_objectives(study), saved_tokens(study), comparison_table()]


def final_objectives(study: Study) -> wr.BarPlot:
    """The objective at the end of the target runs of each mixture, as a report logs it."""
    mixtures = study.comparison.mixtures if study.comparison else []
    return wr.BarPlot(title="Final objective", metrics=[f"final/{name}" for name in mixtures])


def saved_tokens(study: Study) -> wr.BarPlot:
    """The tokens that each mixture saves."""
    compared = study.comparison.mixtures[1:] if study.comparison else []
    return wr.BarPlot(title="Tokens saved", metrics=[f"saved_tokens/{name}" for name in compared])


def comparison_table() -> wr.WeavePanelSummaryTable:
    """The table of the report."""
    return wr.WeavePanelSummaryTable(table_name="comparison")


def shares(study: Study) -> list[str]:
    """The metrics of the mixture."""
    return [f"mixture/{domain}" for domain in study.domains]


def mixture_table(fit: Fit) -> str:
    """The mixtures of a fit as a Markdown table."""
    rows = [["tokens", *fit.domains], ["---"] * (1 + len(fit.domains))]
    rows += [[f"{m.tokens:,}", *(percent(m.weights[d]) for d in fit.domains)] for m in (*fit.scales, *fit.targets)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
