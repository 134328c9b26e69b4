"""`instance-manager completion`: the script that completes commands, options and names of processes."""

import click

EXAMPLE = """
\b
To load the completions
  bash: add to ~/.bashrc                   eval "$(instance-manager completion bash)"
  zsh:  add to ~/.zshrc, after compinit    eval "$(instance-manager completion zsh)"
  fish: run once                           instance-manager completion fish
        > ~/.config/fish/completions/instance-manager.fish

\b
Examples:
  instance-manager completion bash
  longhorn-instance-manager completion bash
"""


@click.command(epilog=EXAMPLE)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def cli(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell and for the name this program is called by.

    Names of processes and instances are completed by asking the daemon (--url or INSTANCE_MANAGER_URL); if it
    does not answer within 2 seconds, none are offered.
    """
    from click.shell_completion import get_completion_class

    root = ctx.find_root()
    program = str(root.info_name)
    if " " in program:  # python -m instance_manager
        program = "instance-manager"
    variable = f"_{program}_COMPLETE".replace("-", "_").replace(".", "_").upper()
    completion = get_completion_class(shell)
    assert completion is not None  # noqa: S101 - the choices above are click's
    click.echo(completion(root.command, {}, program, variable).source(), nl=False)
