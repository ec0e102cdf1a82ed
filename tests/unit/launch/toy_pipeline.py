"""A pipeline of two toy steps, shaped like the real one."""

from kfp import dsl

from components.close_run.component import close_run


@dsl.component(base_image="python:3.11", packages_to_install=[], install_kfp_package=False)
def first(recipe: str, context: str, items: dsl.Output[dsl.Dataset]) -> None:
    from toy_steps import one_step

    one_step("first", recipe, context, {}, items.path)


@dsl.component(base_image="python:3.11", packages_to_install=[], install_kfp_package=False)
def second(
    recipe: str, context: str, items: dsl.Input[dsl.Dataset], scorecard: dsl.Output[dsl.Artifact]
) -> None:
    from toy_steps import one_step

    one_step("second", recipe, context, {"items": items.path}, scorecard.path)


@dsl.pipeline(name="toy")
def toy(recipe: str, context: str) -> None:
    close = close_run(recipe=recipe, context=context).set_caching_options(False)
    with dsl.ExitHandler(close, name="Toy"):
        made = first(recipe=recipe, context=context)
        second(recipe=recipe, context=context, items=made.outputs["items"])
