"""The base of the proxy's and the sandbox's settings."""

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


class ProgramSettings(BaseSettings):
    """Settings made from the values that `settings/loader.py` collects."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=False,
        hide_input_in_errors=True,
        defer_build=True,  # builds validators only for the class that is used
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # the library defines the signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Turns the library's sources off: an error must name its source, which only the loader knows."""
        return (init_settings,)
