"""The view in which a conversion is put together: from what is filled in to what can be chosen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from converter.architecture import Architecture
from converter.bundle import Bundle
from converter.inspection import Inspection, inspect_model
from converter.profiles import get_profile
from sdconv.page import panels
from sdconv.page.addons import (
    LCM_LORAS,
    Addon,
    edited,
    lcm_advice,
    read_addons,
    with_addon,
    write_addons,
)
from sdconv.page.choices import (
    components_of,
    fitting_profiles,
    offered_sizes,
    precision_choices,
    suiting_profile,
)
from sdconv.page.conversion import BUNDLE_OF_JOB, bundle_of
from sdconv.page.desk import Desk, Fetching
from sdconv.page.form import Form, read_precisions
from sdconv.page.jobs import Job
from sdconv.page.order import EXPORT
from sdconv.page.requests import requests_of
from sdconv.page.sources import is_address
from sdconv.page.telling import plain
from sdconv.page.visitor import Visitor
from sdconv.page.words import Words


@dataclass(frozen=True)
class Settled:
    """What the form offers and shows once everything in it is looked at.

    Pairs are labels and values. `family` and `variant` are of the model, empty without one.
    """

    found: str
    addons: str
    family: str = ""
    variant: str = ""
    lcm: bool = False
    has_ema: bool = False
    profiles: Sequence[tuple[str, str]] = ()
    profile: str = ""
    sizes: Sequence[str] = ()
    chosen_sizes: Sequence[str] = ()
    components: Sequence[str] = ()
    chosen_components: Sequence[str] = ()
    precisions: str = ""


@dataclass(frozen=True)
class Composing:
    """What the form can be asked."""

    desk: Desk

    def settle(self, form: Form, visitor: Visitor, *, retargeted: bool = False) -> Settled:
        """Look at everything that was chosen; with `retargeted` the profile follows the targets."""
        words = Words(visitor.language)
        added = read_addons(form.addons)
        listed = panels.addons(words, added, "")
        precisions = panels.hint(words, "make.precision-later")
        try:
            if form.bundle:
                return self._of_bundle(form, visitor, words)
            if not form.model:
                found = panels.hint(words, "model.none")
                return Settled(found, listed, precisions=precisions)
            inspection = self._inspect(form)
        except Exception as e:  # noqa: BLE001  (a visitor sees the page, not the terminal)
            return Settled(panels.problem(words, self.desk.told(e)), listed, precisions=precisions)
        name = panels.short_name(form.model)
        settled = Settled(
            found=panels.found(words, name, inspection),
            addons=panels.addons(words, added, inspection.family),
            family=inspection.family,
            variant=inspection.variant,
            lcm=lcm_advice(added) is not None,
            has_ema=inspection.has_ema,
            precisions=precisions,
        )
        if inspection.architecture is None or not components_of(inspection.architecture):
            return settled
        return self._with_choices(settled, form, inspection.architecture, words, retargeted)

    def _inspect(self, form: Form) -> Inspection:
        """The model with the parts that were added to it."""
        alone = self.desk.inspect(form.model, form.variant)
        if alone.kind != "checkpoint":
            return alone
        order = replace(form.order(), steps=EXPORT, targets=(), loras=(), embeddings=())
        requests = requests_of(
            order, lambda s: self.desk.locate(s, order), self.desk.workspace.jobs
        )
        assert requests.export is not None
        return replace(inspect_model(requests.export.files.open()), path=alone.path)

    def _of_bundle(self, form: Form, visitor: Visitor, words: Words) -> Settled:
        order = form.order()
        folder = bundle_of(self.desk.jobs, order, lambda job: visitor.may_see(job.owner))
        bundle = Bundle.load(folder)
        architecture = Architecture.from_json(bundle.architecture)
        name = panels.short_name(form.bundle)
        if form.bundle.startswith(BUNDLE_OF_JOB):
            name = panels.title_of(self.desk.job(form.bundle.removeprefix(BUNDLE_OF_JOB), visitor))
        settled = Settled(
            panels.bundle_found(words, name, bundle),
            panels.hint(words, "add.none"),
            family=bundle.family,
        )
        pinned = replace(form, profile=bundle.profile)
        chosen = self._with_choices(settled, pinned, architecture, words, retargeted=False)
        here = [c for c in chosen.components if c in bundle.components]
        profile = get_profile(bundle.profile)
        table = panels.precisions(
            words,
            precision_choices(form.targets, here, profile),
            read_precisions(form.precision),
        )
        return replace(
            chosen,
            profiles=[(f"{profile.name}: {profile.consumer}", profile.name)],
            profile=profile.name,
            components=here,
            chosen_components=here,
            precisions=table,
        )

    def _with_choices(
        self,
        settled: Settled,
        form: Form,
        architecture: Architecture,
        words: Words,
        retargeted: bool,
    ) -> Settled:
        fitting = fitting_profiles(architecture)
        names = [profile.name for profile in fitting]
        profile = form.profile
        if retargeted or profile not in names:
            profile = suiting_profile(names, form.targets)
        sizes = offered_sizes(architecture, get_profile(profile)) if profile else []
        kept = [size for size in form.sizes if size in sizes]
        components = components_of(architecture)
        before = form.offered.split()
        chosen = [c for c in components if c in form.components or c not in before]
        table = settled.precisions
        if profile and form.targets:
            offered = precision_choices(form.targets, chosen, get_profile(profile))
            table = panels.precisions(words, offered, read_precisions(form.precision))
        return replace(
            settled,
            profiles=[(f"{p.name}: {p.consumer}", p.name) for p in fitting],
            profile=profile,
            sizes=sizes,
            chosen_sizes=kept or ([] if form.more_sizes.strip() else sizes[:1]),
            components=components,
            chosen_components=chosen,
            precisions=table,
        )

    def plan(self, form: Form, visitor: Visitor) -> str:
        """What it will need, as far as the form is filled in."""
        words = Words(visitor.language)
        if form.bundle:
            return panels.hint(words, "plan.second-step")
        enough = form.steps == EXPORT or (form.targets and (form.sizes or form.more_sizes.strip()))
        if not form.model or not enough:
            return panels.hint(words, "plan.later")
        try:
            _, forecast = self.desk.foresee(form.order())
            return plain(panels.plan(words, forecast), self.desk.workspace.root)
        except Exception as e:  # noqa: BLE001  (likewise)
            return panels.problem(words, f"{words('plan.refused')}: {self.desk.told(e)}")

    def submit(self, form: Form, visitor: Visitor) -> Job:
        """Start what the form says; raises InputError or ToolchainError."""
        return self.desk.submit(form.order(), visitor)

    def fetch(self, address: str, variant: str) -> Iterator[Fetching]:
        """Fetch an address; raises InputError."""
        return self.desk.fetch(address.strip(), variant.strip())

    def add(self, text: str, sources: Sequence[str], variant: str) -> tuple[str, list[str]]:
        """Put files into the list of what was added; also returns what cannot be added, and why."""
        added, refusals = read_addons(text), []
        for source in sources:
            try:
                name = panels.short_name(source)
                added = with_addon(
                    added, Addon.of(source, name, self.desk.inspect(source, variant))
                )
            except Exception as e:  # noqa: BLE001  (likewise)
                refusals.append(self.desk.told(e))
        return write_addons(added), refusals

    def edit(self, text: str, what: str, index: int, value: str) -> str:
        """The list after one of its entries was edited."""
        return write_addons(edited(read_addons(text), what, index, value))

    def without_lcm(self, text: str) -> str:
        """The list without what makes an LCM of the model."""
        return write_addons([addon for addon in read_addons(text) if not addon.is_lcm])

    def lcm_source(self, settled_family: str, settled_variant: str) -> str | None:
        """Where the published LCM-LoRA for a model is; None where there is none."""
        return LCM_LORAS.get((settled_family, settled_variant))

    def needs_fetching(self, source: str, variant: str) -> bool:
        """Whether it is an address that was not fetched yet."""
        return is_address(source) and self.desk.sources.fetched(source, variant) is None
