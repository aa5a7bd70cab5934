use crate::world::{host_box, log_lines, shell, with_world};
use sandbox::{Found, Shim, StartError};

#[test]
fn a_service_runs_says_something_and_its_end_is_written_down() {
    with_world(|world| async move {
        let start = world.start(host_box("hello"), shell("echo hello; echo oops >&2; exit 3"));
        let dir = start.dir.clone();
        let shim = world.spawner.start(start).await.unwrap();
        let record = shim.exited().await;
        assert_eq!((record.code, record.reason.as_str()), (Some(3), "exited with 3"));
        let mut lines = log_lines(&dir);
        lines.sort();
        assert_eq!(lines, ["e oops", "o hello"]);
        assert!(matches!(Shim::connect(&dir).await.unwrap(), Found::Exited(found) if found == record));
        sandbox::forget(&dir).unwrap();
        assert!(matches!(Shim::connect(&dir).await.unwrap(), Found::Nothing));
    });
}

#[test]
fn a_missing_program_is_told_apart() {
    with_world(|world| async move {
        let mut command = shell("");
        command.argv = vec!["no-such-program".to_owned()];
        let start = world.start(host_box("missing"), command);
        let dir = start.dir.clone();
        let error = world.spawner.start(start).await.unwrap_err();
        assert!(matches!(&error, StartError::NoSuchProgram { program } if program == "no-such-program"), "{error:?}");
        assert!(matches!(Shim::connect(&dir).await.unwrap(), Found::Nothing));
    });
}
