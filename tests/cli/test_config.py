"""Options from elsewhere than the command line, and what stands in a list of names."""

import json

import pytest
import typer

from lad_eval.cli.main import app, invoke
from lad_eval.cli.options import expanded, limit_of, model_options
from lad_eval.errors import UserError


def rows(capsys, *words):
    assert invoke(["run", *words, "--json", "-q"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_config_file_gives_options_and_the_command_line_comes_before_it(capsys, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        "model: lad-tiny\ntasks: [scenes_random_n2, scenes_adversarial_n2]\nmethods: vanilla,lad\nlimit: 2\nbatch_size: 4\n"
        f"output_path: {tmp_path / 'runs'}\n"
    )
    found = rows(capsys, "--config", str(config), "--limit", "1")
    assert [(row["task"], row["method"], row["samples"]) for row in found] == [
        (task, method, 1) for task in ("scenes_random_n2", "scenes_adversarial_n2") for method in ("vanilla", "lad")
    ]
    assert (tmp_path / "runs" / "lad-tiny").is_dir()


def test_the_spellings_of_lm_eval_are_taken(capsys, tmp_path):
    words = [
        "--model",
        "hf",
        "--model_args",
        "pretrained=lad-tiny,dtype=float32,trust_remote_code=False",
        "--tasks",
        "scenes_random_n2",
    ]
    found = rows(capsys, *words, "--limit", "0.004", "--batch_size", "4", "--output_path", str(tmp_path), "--methods", "vanilla")
    assert [(row["model"], row["limit"], row["samples"]) for row in found] == [("lad-tiny", 2, 2)]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("model: x\nbatch_sice: 4\n", "batch_sice is not an option of this command. Did you mean 'batch_size'?"),
        ("tasks: {a: b}\n", "tasks must be one value, or a list of names"),
        ("- model\n", "must be a mapping"),
        ("model: [", "line"),
        ("config: other.yaml\n", "config is not an option of this command"),
    ],
)
def test_a_wrong_config_file_is_one_line(content, text, capsys, tmp_path):
    (tmp_path / "run.yaml").write_text(content)
    assert invoke(["run", "--config", str(tmp_path / "run.yaml")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert text in lines[0]


@pytest.mark.parametrize(
    ("text", "model", "wrong"),
    [
        ("pretrained", "hf", "takes name=value"),
        ("pretrainde=x", "hf", "unknown argument 'pretrainde'. Did you mean 'pretrained'?"),
        ("dtype=float16", "hf", "needs --model_args pretrained="),
        ("pretrained=a/b", "lad-tiny", "name two models"),
        ("pretrained=a/b,trust_remote_code=maybe", "hf", "trust_remote_code is true or false"),
        ("pretrained=a/b,image_preparation=big", "hf", "image_preparation is protocol or native or pad"),
        ("pretrained=a/b,batch_size=none", "hf", "batch size"),
        ("pretrained=openai:a,num_concurrent=many", "hf", "concurrency is a number, not 'many'"),
    ],
)
def test_wrong_model_arguments_are_named(text, model, wrong):
    with pytest.raises((typer.BadParameter, UserError), match=wrong):
        model_options(text, model)


def test_model_arguments_are_options_of_a_run():
    given = "pretrained=a/b, revision=main, attn_implementation=sdpa, batch_size=8, trust_remote_code=True"
    assert model_options(given, "hf") == {
        "model": "a/b",
        "revision": "main",
        "attn_implementation": "sdpa",
        "batch_size": 8,
        "trust_remote_code": True,
    }
    assert model_options("dtype=bfloat16", "a/b") == {"dtype": "bfloat16"}
    server = "model=openai:a, base_url=http://localhost:8000/v1, num_concurrent=4, timeout=60"
    assert model_options(server, "hf") == {
        "model": "openai:a",
        "base_url": "http://localhost:8000/v1",
        "concurrency": 4,
        "timeout": 60.0,
    }


@pytest.mark.parametrize(("text", "limit"), [(None, None), ("100", 100), ("0.1", 0.1), ("1", 1), ("1e2", 100)])
def test_limits_are_numbers_or_shares(text, limit):
    assert limit_of(text) == limit


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "nan", "inf", ""])
def test_other_limits_are_refused(text):
    with pytest.raises(typer.BadParameter, match="--limit takes a number of samples"):
        limit_of(text)


def test_globs_choose_methods_and_brackets_are_parameters():
    known = ["vanilla", "lad", "lad-paper"]
    assert expanded(["la*", "lad", "vanilla", "lad(top_k=1)"], known, "method") == ["lad", "lad-paper", "vanilla", "lad(top_k=1)"]
    with pytest.raises(UserError, match=r"Unknown method 'x\*'"):
        expanded(["x*"], known, "method")


@pytest.mark.parametrize(("word", "meant"), [("eval", "run"), ("evaluate", "run"), ("runn", "run"), ("list", "ls")])
def test_what_other_harnesses_call_a_command_is_understood(word, meant, capsys):
    assert invoke([word]) == 2
    assert capsys.readouterr().err == f"error: No such command '{word}'. Did you mean '{meant}'?\n"


def test_underscores_in_the_names_of_commands_and_options_are_hyphens(capsys, tmp_path):
    assert invoke(["lmms_eval", "tasks", "--out", str(tmp_path), "--tasks", "scenes_random_n2"]) == 0
    assert "1 task in" in capsys.readouterr().out


def test_every_command_shows_examples(capsys):
    from lad_eval.cli.main import COMMANDS

    for command in COMMANDS:
        assert invoke([command.name, "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        name = "study lad" if command.name == "paper" else command.name  # its short form
        assert all(f"lad-eval {name}" in example or "torchrun" in example for example in command.examples)
        assert "Examples" in shown


def test_commands_that_load_a_model_declare_its_options_alike():
    """What `run`, `study lad` and `study pruning` take alike has one help text, so none can fall behind the others."""
    command = typer.main.get_command(app)
    commands = {"run": command.commands["run"]} | {
        f"study {name}": made for name, made in command.commands["study"].commands.items()
    }
    names = ("--batch-size", "--dtype", "--device", "--attn", "--revision", "--trust-remote-code", "--seed", "--runs", "--quiet")
    for name in names:
        texts = {
            next(option.help for option in commands[which].params if name in option.opts)
            for which in ("run", "study lad", "study pruning")
        }
        assert len(texts) == 1, name


def test_the_list_of_tasks_fits_100_columns(capsys):
    assert invoke(["ls", "tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert "flickr8k_random_n4" in " ".join(line for line in lines if line.startswith(" ")), "no name is lost or cut"
