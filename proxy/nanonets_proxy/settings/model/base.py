"""What the proxy's and the sandbox's settings share."""

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


class ProgramSettings(BaseSettings):
    """What both sets of settings share. Made from texts as the sources give them; see `loader`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", validate_default=False, hide_input_in_errors=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # the signature is the library's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The loader reads the sources itself: only it can say which one a bad value came from."""
        return (init_settings,)
